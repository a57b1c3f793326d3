"""The steps of a workflow: each calls the function that its command calls."""
