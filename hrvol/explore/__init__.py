"""Single planes without labels: objects, look-alikes, features as colours."""
