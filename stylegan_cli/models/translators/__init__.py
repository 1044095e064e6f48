"""Translators: networks that map images to images, without a generator of images that they would belong to."""
