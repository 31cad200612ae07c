"""Conversion of model weights and configs from and to other libraries."""
