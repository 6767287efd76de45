"""Types, sizes and tokens of images and PDFs, computed from the bytes of the files by formulas."""
