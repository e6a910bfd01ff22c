"""The embedding providers that come with the package."""
