"""What travels between a host and its clients: frames, values, and the streams that carry them."""
