/*
 * Search for pages that are opened from a folder: browsers start no Worker from a file: address, so a hidden frame of
 * the page runs the worker's script instead. Material's plugin `offline` loads no shim from elsewhere when a script
 * whose name holds "iframe-worker" is listed.
 */
(() => {
  if (location.protocol !== "file:") return;

  class FrameWorker extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.scope = frame.contentWindow;
      // What the script sends goes to the page, not to the frame.
      this.scope.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.scope.importScripts = async (...urls) => {
        for (const each of urls) await this.load(each);
      };
      this.ready = this.load(url);
    }

    load(url) {
      return new Promise((loaded, failed) => {
        const script = this.scope.document.createElement("script");
        script.src = new URL(url, document.baseURI).href;
        script.onload = loaded;
        script.onerror = failed;
        this.scope.document.head.append(script);
      });
    }

    postMessage(data) {
      // A worker gets a copy, in the order of sending.
      const copy = structuredClone(data);
      this.ready.then(() => this.scope.dispatchEvent(new MessageEvent("message", { data: copy })));
    }

    terminate() {
      this.scope.frameElement.remove();
    }
  }

  window.Worker = FrameWorker;
})();
