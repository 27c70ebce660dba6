// The form and its buttons by keyboard, where Gradio leaves out what the platform does.
window.csist = (() => {
  "use strict";

  const UNFIT = '[role="option"][aria-label$="windows only"]:not([aria-selected="true"])'; // methods that frames do not have

  /** Give the radio buttons of each choice one name: Gradio gives each its own, anew at every choice, and arrow keys move only within a name. */
  function joinRadios() {
    for (const choice of document.querySelectorAll("fieldset")) {
      const [first, ...others] = choice.querySelectorAll('input[type="radio"]');
      for (const other of others) if (other.name !== first.name) other.name = first.name;
    }
  }

  /** Name the buttons that remove a choice by its text; Gradio names them by its number in the list. */
  function nameRemovals() {
    for (const button of document.querySelectorAll(".token .token-remove")) {
      const name = `Remove ${button.closest(".token").innerText.trim()}`;
      if (button.title !== name) button.title = name;
    }
  }

  function disableUnfit() {
    for (const option of document.querySelectorAll(`${UNFIT}:not([aria-disabled])`)) option.setAttribute("aria-disabled", "true");
  }

  // The Enter key chooses no method that cannot unmix the image, as the pointer does not (style sheet).
  window.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !event.target.closest?.("#methods")) return;
    const option = document.getElementById(event.target.getAttribute("aria-activedescendant"));
    if (!option?.matches(UNFIT)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }, true);

  // A run begins: the focus moves to the button that can end it, and a page of one column shows the progress.
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("#run")) return;
    const cancel = document.querySelector("#cancel");
    new MutationObserver((_, self) => {
      if (cancel.disabled) return;
      self.disconnect();
      if (isLost("run")) cancel.focus({ preventScroll: true });
    }).observe(cancel, { attributes: true });
    const action = document.querySelector("#action");
    const beside = action.getBoundingClientRect().left > document.querySelector("#form").getBoundingClientRect().right;
    if (!beside) action.scrollIntoView({ behavior: "smooth" });
  });

  /** Whether the focus is on a button that is being disabled, or was and is nowhere now. */
  const isLost = (id) => [document.body, document.querySelector(`#${id}`)].includes(document.activeElement);

  function mend() {
    joinRadios();
    nameRemovals();
    disableUnfit();
  }

  mend(); // the form may have been built before this script ran
  new MutationObserver(mend).observe(document.documentElement, { childList: true, subtree: true, attributes: true, attributeFilter: ["title", "name"] });

  return {
    /** A run has ended: the focus returns, and the address is the link that restores the settings. */
    end() {
      if (isLost("cancel")) document.querySelector("#run").focus({ preventScroll: true });
      const link = document.querySelector("#results nav a:last-of-type");
      if (link) history.replaceState(null, "", link.getAttribute("href"));
    },
  };
})();
