"""Written by generate.py from the .proto files; not edited by hand."""
