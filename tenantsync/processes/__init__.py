"""What people watch and answer: states, numbered events, questions."""
