"""Paths and URLs, records, remote stores."""
