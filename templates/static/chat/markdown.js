// Markdown to DOM nodes, for text that nobody vouches for: an answer is data. Three independent hands, so that a gap in
// one is not a hole: markdown-it makes no HTML of what it was given and shows images as their description; links other
// than http, https and mailto lose their address; DOMPurify lets pass a short list of elements and attributes.

import MarkdownIt from "./vendor/markdown-it.js";
import DOMPurify from "./vendor/dompurify.js";

const SAFE_ADDRESS = /^(?:https?:\/\/|mailto:)/i;
const PURIFY = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s", "span", "strong",
    "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["class", "href", "rel", "start", "target"],
  ALLOWED_URI_REGEXP: SAFE_ADDRESS,
  ADD_URI_SAFE_ATTR: ["rel", "start", "target"], // hold no address
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const markdown = new MarkdownIt({ html: false, linkify: true, breaks: true, maxNesting: 40 });
markdown.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
// Every link is parsed, so that its text and not its source shows; `tame` then takes away what may not be followed.
markdown.validateLink = () => true;
markdown.core.ruler.push("tame", ({ tokens }) => tokens.forEach(tame));
markdown.renderer.rules.image = (tokens, index, options, env, renderer) => {
  const description = renderer.renderInlineAsText(tokens[index].children, options, env).trim();
  return `<span class="chat-image">${markdown.utils.escapeHtml(description || "image")}</span>`;
};

/** Returns the HTML of each top-level block of `text`. It still has to go through `toNodes`. */
export function renderBlocks(text) {
  const env = {};
  const blocks = [];
  let block = [];
  let depth = 0;
  for (const token of markdown.parse(text, env)) {
    block.push(token);
    depth += token.nesting;
    if (depth === 0) {
      blocks.push(markdown.renderer.render(block, markdown.options, env));
      block = [];
    }
  }
  return blocks;
}

/** Returns a fragment of harmless nodes for the HTML of one block. */
export function toNodes(html) {
  return DOMPurify.sanitize(html, PURIFY);
}

function tame(token) {
  if (token.type === "heading_open" || token.type === "heading_close") {
    token.tag = `h${Math.min(Number(token.tag[1]) + 2, 6)}`; // the page has its own first and second level
  }
  const style = token.attrGet("style");
  if (style) token.attrs = [["class", `chat-${style.replace(":", "-")}`]]; // a table's alignment, without inline style
  if (token.type === "inline") dropUnsafeLinks(token);
}

function dropUnsafeLinks(inline) {
  const open = [];
  inline.children = inline.children.filter((token) => {
    if (token.type === "link_open") {
      const isSafe = SAFE_ADDRESS.test(token.attrGet("href") ?? "");
      open.push(isSafe);
      if (isSafe) {
        token.attrs = [
          ["href", token.attrGet("href")],
          ["rel", "noopener noreferrer nofollow"],
          ["target", "_blank"],
        ];
      }
      return isSafe;
    }
    return token.type === "link_close" ? open.pop() : true;
  });
}
