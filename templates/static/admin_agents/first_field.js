// A new record's first field takes the keys, unless somebody is in another one already: a page is used before it is whole.
{
  const { elements } = document.currentScript.closest("form");
  const isOpen = (element) => element.matches("button, input, select, textarea") && !element.disabled && element.offsetParent;
  if (document.activeElement === document.body) [...elements].find(isOpen)?.focus();
}
