"""`python -m app.cli` is `agentchord`, also where the script is not installed."""

from app.cli import main

main()
