"""Commands: one file each; words in, words out. Nothing imports this package."""
