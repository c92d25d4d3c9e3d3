"""PGPO on the embedded model, two steps: about a minute on a CPU."""

from datasets import Dataset
from peft import LoraConfig

from poise import PGPOConfig, PGPOTrainer
from poise.rewards import multiple_choice_reward

EXAMPLE = "Question: 3 + 3?\nA) 5\nB) 6\nAnswer: (B)\n"
SUMS = [("2 + 2", 4), ("1 + 6", 7), ("5 + 3", 8), ("4 + 5", 9)]
rows = [
    {
        "prompt": f"{EXAMPLE}Question: {sum_}?\nA) {right - 1}\nB) {right}\nAnswer: (",
        "answer": "B",
        "privileged_context": f"{sum_} is {right}.\nAnswer: B",
    }
    for sum_, right in SUMS
]
trainer = PGPOTrainer(
    model="default",
    reward_funcs=multiple_choice_reward,
    args=PGPOConfig(
        output_dir="runs/quickstart",
        max_steps=2,
        num_generations=4,
        max_completion_length=4,
        include_environment_feedback=True,  # the teacher sees `privileged_context`
        logging_steps=1,
        save_strategy="no",
        report_to="none",
    ),
    train_dataset=Dataset.from_list(rows),
    peft_config=LoraConfig(r=8, target_modules="all-linear"),
)
trainer.train()
for step in trainer.state.log_history:
    if "pgpo/distance" in step:
        moved, scale = step["pgpo/distance"], step["pgpo/multiplier"]
        print(f"step {step['step']}: the policy moved {moved:.4f} nats a token, step x {scale:.3g}")
