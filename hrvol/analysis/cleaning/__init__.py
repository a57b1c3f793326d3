"""Clean label maps: small components, holes, rough surfaces."""
