// The files of a drop or of a picker, each with its path in the folder that was dropped.

export function carriesFiles(event) {
  return event.dataTransfer?.types.includes("Files");
}

// All files of a drop, as pairs of file and path. Folders are opened. `onUnread` is called with what cannot be read.
export async function filesOfDrop(transfer, onUnread) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return filesOfPicker(transfer.files);
  return (await Promise.all(entries.map((entry) => within(entry, onUnread)))).flat();
}

export function filesOfPicker(files) {
  return [...files].map((file) => [file, file.webkitRelativePath || file.name]);
}

async function within(entry, onUnread) {
  const found = [];
  try {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => { entry.file(resolve, reject); });
      return [[file, entry.fullPath.replace(/^\/+/, "")]];
    }
    const reader = entry.createReader();
    for (;;) {
      const batch = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
      if (!batch.length) return found;
      found.push(...(await Promise.all(batch.map((each) => within(each, onUnread)))).flat());
    }
  } catch {
    onUnread(entry.name);
    return found;
  }
}
