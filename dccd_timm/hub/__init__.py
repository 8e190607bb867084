"""A student on the Hugging Face Hub: its card, what of a run may be published, and the push."""
