"""Weight files of trained methods: safetensors with a card, those that come with the package, foreign checkpoints."""
