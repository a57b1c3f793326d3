"""Open, read and write volumes; divide them into blocks and tiles. The only code that opens stores."""
