#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <chrono>
#include <deque>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "batcher/batcher.h"
#include "bindings.h"
#include "common/dlpack.h"

namespace py = pybind11;

namespace {

using namespace ttsfast;

// How long a wait lasts before a signal is looked for.
constexpr std::chrono::milliseconds kPatience(50);

std::vector<std::int64_t> whole_numbers(const py::handle& source, const char* name) {
  const auto array = py::array::ensure(source);
  if (!array || array.ndim() != 1 || array.dtype().kind() != 'i' || array.itemsize() != 8)
    throw std::invalid_argument(std::string(name) + " must be an int64 array (n,)");
  const auto contiguous = py::array_t<std::int64_t, py::array::c_style>::ensure(array);
  if (!contiguous) throw std::invalid_argument(std::string(name) + " must be an int64 array (n,)");
  return {contiguous.data(), contiguous.data() + contiguous.size()};
}

// (content, first byte of mel, rows, first byte of text, symbols): the content is a descriptor, which is
// duplicated, or bytes in memory, which `held` keeps.
Shard shard_of(const py::tuple& source, std::int64_t bins, std::vector<py::buffer_info>& held) {
  Shard shard;
  shard.mel.offset = source[1].cast<std::uint64_t>();
  shard.rows = source[2].cast<std::int64_t>();
  shard.text.offset = source[3].cast<std::uint64_t>();
  shard.symbols = source[4].cast<std::int64_t>();
  if (py::isinstance<py::int_>(source[0])) {
    shard.file = std::make_shared<const File>(source[0].cast<int>());
    return shard;
  }
  held.push_back(source[0].cast<py::buffer>().request());
  const py::buffer_info& content = held.back();
  if (content.ndim != 1 || content.strides[0] != content.itemsize)
    throw std::invalid_argument("a shard in memory must be contiguous bytes");
  place_in_memory(shard, static_cast<const unsigned char*>(content.ptr),
                  static_cast<std::uint64_t>(content.size * content.itemsize), bins);
  return shard;
}

const char* fault_name(Fault fault) {
  switch (fault) {
    case Fault::checksum: return "checksum";
    case Fault::symbol: return "symbol";
    case Fault::shortened: return "shortened";
    case Fault::unreadable: return "unreadable";
    default: return "memory";
  }
}

// A slot as a tensor of bytes; the lease ends with the last tensor over it.
struct Leased {
  DLManagedTensor tensor;
  Lease lease;
  std::int64_t shape[1];
  std::int64_t strides[1];
};

void end_lease(DLManagedTensor* managed) { delete static_cast<Leased*>(managed->manager_ctx); }

void destroy_capsule(PyObject* capsule) {
  // Whoever took the tensor has renamed the capsule, and lets go of it itself.
  if (!PyCapsule_IsValid(capsule, "dltensor")) return;
  end_lease(static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor")));
}

py::object bytes_tensor(Lease lease, std::size_t bytes) {
  auto leased = std::make_unique<Leased>();
  leased->lease = std::move(lease);
  leased->shape[0] = static_cast<std::int64_t>(bytes);
  leased->strides[0] = 1;
  leased->tensor = {{leased->lease.data(), {kDLCPU, 0}, 1, {kDLUInt, 8, 1}, leased->shape, leased->strides, 0},
                    leased.get(),
                    end_lease};
  PyObject* capsule = PyCapsule_New(&leased->tensor, "dltensor", destroy_capsule);
  if (capsule == nullptr) throw py::error_already_set();
  leased.release();
  return py::reinterpret_steal<py::object>(capsule);
}

py::dict described(const Layout& layout) {
  py::dict entries;
  entries["utterances"] = layout.utterances;
  entries["frames"] = layout.frames;
  entries["symbols"] = layout.symbols;
  entries["valid_frames"] = layout.valid_frames;
  entries["mel"] = layout.mel;
  entries["text"] = layout.text;
  entries["text_lengths"] = layout.text_lengths;
  entries["mel_lengths"] = layout.mel_lengths;
  entries["speaker"] = layout.speaker;
  entries["truncated"] = layout.truncated;
  entries["frame_mask"] = layout.frame_mask;
  entries["stop_targets"] = layout.stop_targets;
  entries["bytes"] = layout.bytes;
  return entries;
}

// The batcher as Python holds it: with the arrays that the threads read and the memory that they write.
class Handle {
 public:
  Handle(const py::list& shards, const py::dict& columns, std::int64_t bins, std::int64_t alphabet, bool verify,
         const std::string& dtype, const std::vector<float>& silence, std::size_t tail_frames,
         std::size_t frame_multiple, std::size_t text_multiple, bool targets, std::size_t threads,
         std::size_t slots, std::size_t usual_bytes) {
    std::vector<Shard> opened;
    for (const py::handle& shard : shards) opened.push_back(shard_of(shard.cast<py::tuple>(), bins, held_));
    Columns table;
    const std::pair<const char*, std::vector<std::int64_t>*> numbers[] = {
        {"shard", &table.shard},     {"offset", &table.offset},   {"frames", &table.frames},
        {"symbols", &table.symbols}, {"speaker", &table.speaker}, {"crc32c", &table.crc32c},
        {"text_offset", &table.text_offset}};
    for (const auto& [name, column] : numbers) *column = whole_numbers(columns[name], name);
    for (const std::int64_t value : whole_numbers(columns["truncated"], "truncated"))
      table.truncated.push_back(value != 0);
    Format format{element_named(dtype), tail_frames, frame_multiple, text_multiple, targets, silence};
    core_ = std::make_shared<Batcher>(
        std::make_shared<const Table>(std::move(opened), table, bins, alphabet, verify), std::move(format), threads,
        slots, usual_bytes);
  }

  ~Handle() {
    if (core_->in_forked_child()) {
      // Its threads do not exist here, and its locks may be held by one of them: left as it is.
      (void)new std::shared_ptr<Batcher>(std::move(core_));
      (void)new std::vector<py::buffer_info>(std::move(held_));
      return;
    }
    close();
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;

  std::size_t bytes(const py::array& utterances) const {
    return core_->layout(whole_numbers(utterances, "utterances")).bytes;
  }

  void push(const py::array& utterances, const py::object& memory, const py::object& owner) {
    refuse_in_a_child();
    Lent lent;
    if (!memory.is_none()) {
      const auto array = memory.cast<py::array>();
      if (array.ndim() != 1 || array.itemsize() != 1 || !array.writeable() || (array.flags() & py::array::c_style) == 0)
        throw std::invalid_argument("memory must be a writeable contiguous array of bytes");
      lent = {static_cast<unsigned char*>(const_cast<void*>(array.data())), static_cast<std::size_t>(array.size())};
    }
    const Alone alone(busy_);
    core_->push(whole_numbers(utterances, "utterances"), lent);
    lent_.emplace_back(memory, owner);
  }

  py::tuple take() {
    refuse_in_a_child();
    const Alone alone(busy_);
    std::optional<Made> made = wait_a_moment();
    while (!made) {
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      made = wait_a_moment();
    }
    const auto [memory, owner] = std::move(lent_.front());
    lent_.pop_front();
    if (made->failure.fault != Fault::none)
      return py::make_tuple(
          py::make_tuple(fault_name(made->failure.fault), made->failure.utterance, made->failure.detail), py::none(),
          py::none(), owner);
    py::object slot = py::none();
    if (memory.is_none()) slot = bytes_tensor(std::move(made->lease), made->layout.bytes);
    return py::make_tuple(py::none(), described(made->layout), slot, owner);
  }

  bool ready() const { return !core_->in_forked_child() && core_->ready(); }

  void clear() {
    refuse_in_a_child();
    const Alone alone(busy_);
    {
      py::gil_scoped_release unlocked;
      core_->clear();
    }
    lent_.clear();
  }

  void close() {
    if (core_->in_forked_child()) return;
    py::gil_scoped_release unlocked;
    core_->close();
  }

  std::size_t threads() const { return core_->threads(); }

 private:
  void refuse_in_a_child() const {
    if (core_->in_forked_child())
      throw std::runtime_error("a MelLoader's threads do not survive a fork: open it in the new process");
  }

  // Not py::gil_scoped_release: at the end of the interpreter a daemon thread is unwound where it asks for the
  // lock, which must not happen in a destructor.
  std::optional<Made> wait_a_moment() {
    std::optional<Made> made;
    PyThreadState* const state = PyEval_SaveThread();
    try {
      made = core_->take(kPatience);
    } catch (const std::exception&) {
      PyEval_RestoreThread(state);
      throw;
    }
    PyEval_RestoreThread(state);
    return made;
  }

  // Guarded by the interpreter lock, which waiting lets go of.
  class Alone {
   public:
    explicit Alone(bool& busy) : busy_(busy) {
      if (busy) throw std::runtime_error("a batcher is for one thread at a time");
      busy = true;
    }
    ~Alone() { busy_ = false; }
    Alone(const Alone&) = delete;
    Alone& operator=(const Alone&) = delete;

   private:
    bool& busy_;
  };

  bool busy_ = false;
  std::vector<py::buffer_info> held_;  // what the threads read in memory
  // Of what was pushed and not taken, in order: the lent memory or None, and its owner.
  std::deque<std::pair<py::object, py::object>> lent_;
  std::shared_ptr<Batcher> core_;
};

}  // namespace

void bind_batcher(py::module_& module) {
  py::register_exception<Closed>(module, "BatcherClosed", PyExc_RuntimeError);
  py::register_exception_translator([](std::exception_ptr raised) {
    try {
      if (raised) std::rethrow_exception(raised);
    } catch (const BadUtterance& bad) {
      const py::tuple arguments = py::make_tuple(bad.utterance, bad.what());
      PyErr_SetObject(PyExc_IndexError, arguments.ptr());
    }
  });
  py::class_<Handle>(module, "Batcher", "Threads that fill slots with batches; see ttsfast/data/loading/batcher.py.")
      .def(py::init<const py::list&, const py::dict&, std::int64_t, std::int64_t, bool, const std::string&,
                    const std::vector<float>&, std::size_t, std::size_t, std::size_t, bool, std::size_t,
                    std::size_t, std::size_t>(),
           py::kw_only(), py::arg("shards"), py::arg("columns"), py::arg("bins"), py::arg("alphabet"),
           py::arg("verify"), py::arg("dtype"), py::arg("silence"), py::arg("tail_frames"),
           py::arg("frame_multiple"), py::arg("text_multiple"), py::arg("targets"), py::arg("threads"),
           py::arg("slots"), py::arg("usual_bytes") = 0,
           "IndexError (utterance, why) for one outside its shard; ValueError for anything else that cannot be.")
      .def("bytes", &Handle::bytes, py::arg("utterances"), "The memory that a batch of these needs.")
      .def("push", &Handle::push, py::arg("utterances"), py::arg("memory") = py::none(),
           py::arg("owner") = py::none(),
           "Queue a batch, int64 (B,); into a slot, or into lent memory (an array of bytes). take() gives owner back.")
      .def("take", &Handle::take,
           "The next batch: (failure or None, layout, a DLPack capsule of the slot's bytes or None, owner). A failure "
           "is (what, utterance or -1, the system's reason).")
      .def("ready", &Handle::ready, "Whether take() would return at once.")
      .def("clear", &Handle::clear, "Forget what was pushed and not taken; no thread writes to it any more.")
      .def("close", &Handle::close, "End the threads; harmless a second time.")
      .def_property_readonly("threads", &Handle::threads, "Threads that the system gave.");
}
