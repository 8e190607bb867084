"""Images -> V views -> batches.

From ground to top: ``seeds`` (random numbers), ``decode`` (records and samples), ``views`` and ``fast`` (augmentation),
``collate``, ``sampler`` and ``stream`` (in which order), ``sources`` (where images come from), ``device`` (the rest of
the augmentation), ``loader`` (batches of a rank), ``build`` (recipe -> loaders).
"""
