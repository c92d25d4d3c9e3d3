"""What the families say in each domain; the last phrasing of each is kept for tests."""
