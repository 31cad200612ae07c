"""Evaluation of trained models: the evaluator that training and commands share, predictions, text generation."""
