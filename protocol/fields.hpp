// The one list of a struct's fields. Wire, configuration, log and tests all walk this list, so a field is written once.
//
//   struct Ack {
//     uint64_t version = 0;
//     static constexpr std::tuple kFields{Field{"version", &Ack::version}};
//   };
//   TROUPE_FIELDS_COMPLETE(Ack);
//
// TROUPE_FIELDS_COMPLETE compares the list's length with the number of data members, found by probing aggregate
// initialisation, so a forgotten field does not compile. Structs stay aggregates: no constructors, no bases.
// Depends on nothing.
#pragma once

#include <concepts>
#include <cstddef>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace troupe {

// A field's key (on the wire, in JSON, in logs) and where it lives.
template <class Owner, class Value>
struct Field {
  using value_type = Value;
  std::string_view name;
  Value Owner::*member;
  constexpr Field(std::string_view n, Value Owner::*m) : name(n), member(m) {}
};

// A value that has no default: a configuration without it is an error that names its key.
template <class T>
struct Required {
  T value{};
  const T& operator*() const { return value; }
  const T* operator->() const { return &value; }
  T& operator*() { return value; }
  friend bool operator==(const Required&, const Required&) = default;
};

template <class T>
inline constexpr bool is_required = false;
template <class T>
inline constexpr bool is_required<Required<T>> = true;

// A struct that lists its fields.
template <class T>
concept Fielded = requires {
  std::tuple_size<std::remove_cvref_t<decltype(T::kFields)>>::value;
};

template <Fielded T>
inline constexpr std::size_t field_count = std::tuple_size_v<std::remove_cvref_t<decltype(T::kFields)>>;

// Calls visit(name, value) for each field of `object`, in the order of the list.
template <class T, class Visitor>
requires Fielded<std::remove_cvref_t<T>>
constexpr void for_each_field(T&& object, Visitor&& visit) {
  std::apply([&](const auto&... field) { (visit(field.name, object.*(field.member)), ...); },
             std::remove_cvref_t<T>::kFields);
}

namespace detail {
struct Anything {
  template <class T>
  operator T() const;  // never defined: used in unevaluated operands only
};

template <class T, std::size_t... I>
constexpr bool initializable(std::index_sequence<I...>) {
  return requires {
    T{((void)I, Anything{})...};
  };
}

template <class T, std::size_t N = 0>
constexpr std::size_t member_count() {
  if constexpr (initializable<T>(std::make_index_sequence<N + 1>{})) {
    return member_count<T, N + 1>();
  } else {
    return N;
  }
}
}  // namespace detail

#define TROUPE_FIELDS_COMPLETE(T) \
  static_assert(::troupe::field_count<T> == ::troupe::detail::member_count<T>(), #T "::kFields misses a member")

}  // namespace troupe
