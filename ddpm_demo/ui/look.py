"""How the page looks: its theme, and what all tabs share of style."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

# The app serves its fonts itself, so the page works with no network at all. Of the default font's
# weights, 600 lacks most letters.
FONT = gr.themes.LocalFont("Source Sans Pro", weights=(400, 700))
# Gradio's own small sizes, 9 to 12 px, can't be read from the back row.
SIZES = gr.themes.Size(
    name="readable", xxs="14px", xs="14px", sm="14px", md="14px", lg="16px", xl="22px", xxl="26px"
)
THEME = gr.themes.Default(
    text_size=SIZES,
    primary_hue="teal",
    neutral_hue="slate",
    radius_size="md",
    font=[FONT, "ui-sans-serif", "system-ui", "sans-serif"],
).set(
    # Gradio's own greys and teals are too pale to read on a projector; these have 4.5:1 and more.
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_400",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400",
    checkbox_background_color_selected="*primary_700",
    checkbox_border_color_selected="*primary_700",
    slider_color="*primary_700",
    slider_color_dark="*primary_400",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
    button_primary_text_color="white",
    button_primary_text_color_dark="white",
)
CSS = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
SCREENS = Path(__file__).with_name("screens.css").read_text(encoding="utf-8")
