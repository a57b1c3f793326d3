"""Reports: one HTML file about an output, with pictures, figures and how it was made."""
