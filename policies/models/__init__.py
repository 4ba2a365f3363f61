"""Vision-language models: tokens, chat and image layouts, checkpoint folders, embedded models."""
