"""How the constants of the suggestion are fitted: README.md says how to do it again."""
