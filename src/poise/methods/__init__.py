"""What is done with gradients per domain; nothing here knows a trainer."""
