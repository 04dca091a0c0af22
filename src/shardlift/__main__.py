"""`python -m shardlift` is `shardlift`."""

from shardlift.cli import main

if __name__ == "__main__":
    main()
