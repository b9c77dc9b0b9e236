"""The quotes of a window: the asset, its checks, and what the UI shows of it."""
