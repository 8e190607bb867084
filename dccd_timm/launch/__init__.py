"""What starts and ends processes."""
