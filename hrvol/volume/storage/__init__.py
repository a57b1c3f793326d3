"""Open stores at paths and URLs, and keep records in them."""
