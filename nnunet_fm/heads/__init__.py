"""Heads on cached features: what a frozen encoder's vectors are worth beyond segmentation."""
