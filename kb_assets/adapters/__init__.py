"""Retrievers for other frameworks, each over `KnowledgeBase.search`."""
