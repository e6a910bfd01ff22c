"""Messages of conversations: taken in, counted as they come, and read in windows."""
