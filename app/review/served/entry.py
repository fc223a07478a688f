"""The review app's entry, run by Streamlit: `cgankd review` starts it."""

import streamlit as st

from cgankd.app.review.views import (
    compare,
    errors_shown,
    faces,
    gallery,
    keep_widgets,
    one_by_one,
    overview,
    policy,
    release,
    sidebar,
)

# Streamlit's captions and slider values are paler than WCAG 2's 4.5 to 1 asks for.
STYLE = """<style>
.stMainBlockContainer { padding-top: 3.2rem }
[data-testid="stCaptionContainer"] { color: inherit; opacity: 0.85 }
[data-testid="stCaptionContainer"] * { color: inherit }
.stSlider [data-testid="stSliderThumbValue"], .stSlider p { color: inherit !important }
</style>"""
PAGES = (
    (overview, "Overview", ":material/dashboard:"),
    (gallery, "Gallery", ":material/grid_view:"),
    (one_by_one, "One by one", ":material/swipe:"),
    (policy, "Policy", ":material/tune:"),
    (compare, "Compare", ":material/compare_arrows:"),
    (faces, "Reals and fakes", ":material/visibility:"),
    (release, "Release", ":material/publish:"),
)


def main() -> None:
    """Draws the page that the address names."""
    st.set_page_config(page_title="cgankd review", layout="wide")
    st.html(STYLE)
    keep_widgets()
    page = st.navigation(
        [
            st.Page(
                module.draw,
                title=title,
                icon=icon,
                url_path=title.lower().replace(" ", "-"),
                default=module is overview,
            )
            for module, title, icon in PAGES
        ]
    )
    st.title(page.title)
    with errors_shown():
        sidebar()
        page.run()


if __name__ == "__main__":
    main()
