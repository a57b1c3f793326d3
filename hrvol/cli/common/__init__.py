"""What several commands share: options, printed output, progress."""
