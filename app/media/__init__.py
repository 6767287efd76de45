"""Types and sizes of images and PDFs, read from their bytes, and their tokens by formulas."""
