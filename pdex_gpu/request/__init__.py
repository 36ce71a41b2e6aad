"""What a call asks for: its options, and the screen opened as they say."""
