"""Options behind a training command that make it end in seconds."""

from __future__ import annotations

ONE_STEP = "--steps 1 --warmup-steps 0 --validate-every 1 --workers 0 --precision 32-true --accelerator cpu"
ONE_EPOCH = f"--epochs 1 {ONE_STEP.replace('--steps 1', '').replace('--validate-every 1', '')}"
JUDGED = "--set validation_crops=2 --set calibration_crops=4"
CROPS = f"--set crop_px=128 --set batch_size=2 {JUDGED} --set distinct_crops=0 --set micrograph_share=0"
