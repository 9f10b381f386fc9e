"""Storage: scalars as event records, files on any filesystem, and the thread that writes them."""
