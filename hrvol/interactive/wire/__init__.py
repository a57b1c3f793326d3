"""What a server of a session and its clients send to each other."""
