"""What is asked of the operating system: processes that end with their parent, signals, folders exchanged at once."""
