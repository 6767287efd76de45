"""`python -m app.cli` does the same as `agentchord`, and needs no installed script."""

from app.cli import main

main()
