"""A teacher's answers to the views of a training, kept in a folder: computed once, and read from then on."""
