"""The napari plugin: readers, a writer, sample data, and a dock whose panels run the command line.

Importing it loads neither torch nor Qt. Modules that need Qt are imported when the dock is opened, through
qtpy, which uses whatever binding napari uses.
"""
