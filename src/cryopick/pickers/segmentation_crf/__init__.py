"""`segmentation-crf`: every pixel's class, refined by a conditional random field (Chung and Chou)."""
