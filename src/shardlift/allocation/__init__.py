"""A pure model of how the engines place shard copies, to say before a plan starts whether every move is possible."""
