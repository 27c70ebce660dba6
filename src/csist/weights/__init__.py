"""Weight files of trained methods: safetensors with a card, pretrained weights, and checkpoints of other frameworks."""
