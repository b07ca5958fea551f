"""What our own engines share."""
